//! The resource as users write it.
