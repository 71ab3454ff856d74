// Package screen shows copies to people and programs: a progress bar on a
// terminal, lines elsewhere, JSON for machines. Whatever others wrote is made
// printable on its way: a file name must not steer a terminal.
//
// It must not know where the copies come from.
package screen
