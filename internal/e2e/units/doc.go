// Package units holds the tests of what is installed as it is: systemd units
// and drop-ins, what belongs to them, the objects for the API server, and the
// scripts for workload managers. All of it is text that is wrong in silence, so
// each promise made about it has its test.
//
// Nothing here starts a unit: that needs a machine of its own. What judges
// units without one, systemd-analyze, does so on a tree that is made for it.
package units
