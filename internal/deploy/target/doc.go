// Package target brings one node to what it is wanted to be: it looks what is there,
// finds the difference, and makes the change in one go, or not at all.
//
// Two calls to the node are enough, one when nothing is to be done. What is
// sent is staged and verified first; the switch then runs on the node by itself,
// so that neither a broken connection nor Ctrl-C leaves it half way.
//
// It must not know how many nodes there are, nor where credentials come from.
package target
