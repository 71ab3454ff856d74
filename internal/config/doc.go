// Package config turns one table of settings into everything that speaks of
// them: the keys of the TOML file, environment names, flags, their help, the
// commented default file and the dump of what is in effect.
//
// Each later layer wins: defaults, the main file, its drop-in directory in
// lexical order, the environment, flags. Every value remembers which layer it
// came from, and every complaint names the place to repair.
//
// The package knows what a setting looks like and where it may be given. It
// must not know what a setting does: it opens no connection, changes no
// process-wide state and imports no other package of this repository. What
// belongs to a single daemon is in a file of that daemon's name.
package config
