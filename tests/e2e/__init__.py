"""A package, so that what its tests share goes when the last of them is over, and not when all tests are."""
