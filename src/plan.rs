//! From a monitor to the objects that watch its bot.
