package commands

// Manual is the reference for docs/nnf-dmctl.md, from what the program itself
// goes by.
func Manual() string {
	return Reference().Manual() + "`status`, `wait` and `copy --wait` end with the code for the copies that have ended: a failed one counts more than one that\nwas deleted, and that more than a cancelled one.\n\n"
}
