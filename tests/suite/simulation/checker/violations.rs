//! Proof that the checker can fail: each violation, made on purpose, is seen.
