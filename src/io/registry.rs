//! Registry credentials as the node holds them.
