// Package deploycreds holds the tests that nnf-deploy gets credentials out of a
// real cluster, that it tries them before it writes them, and that it says what is
// wrong when they are.
//
// It must not know how credentials get to a node.
package deploycreds
