// Package cli is the command line of a program with sub-commands. One
// table says what there is: from it come parsing, help, exit codes, completion for
// bash, and what the manual page and the documentation are made of.
//
// It must not know what a program does.
package cli
