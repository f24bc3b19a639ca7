//! FLV tag bodies.
