// Package require decides what happens to a test that this machine cannot run: it is skipped
// with the reason, or fails if E2E_REQUIRE is set, as it is in .ci/run.
//
// It must not know what the tests do.
package require

import (
	"os"
	"os/exec"
	"testing"
)

// Var is the environment variable that makes a test that cannot run here a failure.
const Var = "E2E_REQUIRE"

// Set reports whether each test must run.
func Set() bool { return os.Getenv(Var) != "" }

// Tool skips the test, or fails it if Set, unless all programs are installed. The names are
// literals: TestTools checks that make test installs each of them.
func Tool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Missing(t, err.Error()+"; internal/e2e/need.sh "+name+" installs it")
		}
	}
}

// Missing skips the test, or fails it if Set, for the reason why.
func Missing(t testing.TB, why string) {
	t.Helper()
	if Set() {
		t.Fatalf("cannot run here, and %s is set: %s", Var, why)
	}
	t.Skip("not run: ", why)
}
