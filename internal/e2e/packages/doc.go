// Package packages holds the tests of the RPMs: what is in them, that both ways
// of making them make the same, that the same sources give the same bytes, and
// what they do to a machine that is a folder.
//
// It must not know what the daemons do, and needs no systemd: with a running one
// the packages are tested on a whole machine.
package packages
