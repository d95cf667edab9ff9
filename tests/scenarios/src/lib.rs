//! Nothing is here: the stories are in `tests/`.
