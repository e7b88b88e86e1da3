"""What is done with finished assets: booting them for proof."""
