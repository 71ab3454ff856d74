// Package deploy is the command line of nnf-deploy: its verbs, their flags and
// help, exit codes, and what signals do. Manual page, documentation and completion
// are made from the same table.
//
// It must not know how a node or a credential is dealt with.
package deploy
