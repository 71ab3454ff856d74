package config

// CheckArgs reads the arguments and uses none of them: no file and no
// environment is looked at. It returns the words that are no flags; its errors
// are ErrHelp or a *usage.Error.
func CheckArgs(t *Table, args []string) (rest []string, err error) {
	line, err := parseArgs(t, args)
	return line.rest, err
}
