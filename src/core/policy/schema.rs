//! JSON Schema of everything that people write.
