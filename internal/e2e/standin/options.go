package main

import "strings"

// options splits arguments into options and positional ones. Names in
// withValue take a value, given as --name value, --name=value, -n value or
// -nvalue. The LVM tools accept options anywhere.
func options(args []string, withValue ...string) (opts map[string]string, positional []string) {
	takes := map[string]bool{}
	for _, n := range withValue {
		takes[n] = true
	}
	opts = map[string]string{}
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, value, has := strings.Cut(a, "=")
		switch {
		case a == "--":
			return opts, append(positional, args[i+1:]...)
		case strings.HasPrefix(a, "--"):
			if takes[name] && !has && i+1 < len(args) {
				i++
				value = args[i]
			}
			opts[name] = value
		case len(a) > 1 && a[0] == '-':
			short := a[:2]
			switch {
			case !takes[short]:
				for _, c := range a[1:] {
					opts["-"+string(c)] = ""
				}
			case len(a) > 2:
				opts[short] = a[2:]
			case i+1 < len(args):
				i++
				opts[short] = args[i]
			}
		default:
			positional = append(positional, a)
		}
	}
	return opts, positional
}

// first returns the value of the first option that is set.
func first(opts map[string]string, names ...string) (string, bool) {
	for _, n := range names {
		if v, ok := opts[n]; ok {
			return v, true
		}
	}
	return "", false
}
