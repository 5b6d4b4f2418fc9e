//! What people write, and what is made of it.

mod differences;
mod health;
