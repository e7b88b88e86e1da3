"""Looking at bundles unverified: ``view`` says what one holds, ``diff`` what differs."""
