// Package manifests holds the tests that a real API server takes what is shipped
// for it, and does with it what the manifests promise.
//
// It must not know what a daemon does with its account.
package manifests
