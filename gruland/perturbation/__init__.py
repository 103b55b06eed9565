"""Words with errors: TextAttack's swaps, and texts in which a share of the words meets them."""
