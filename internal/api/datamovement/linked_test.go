package datamovement

import (
	"os/exec"
	"strings"
	"testing"
)

// A node that only mounts must not pay for gRPC: clientmountd links none of it.
func TestNotInClientmountd(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/clientmountd")
	cmd.Dir = "../../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !strings.Contains(string(out), "/internal/api/dws\n") {
		t.Fatalf("this is not the list of clientmountd's packages:\n%s", out)
	}
	for pkg := range strings.Lines(string(out)) {
		pkg = strings.TrimSpace(pkg)
		if strings.HasPrefix(pkg, "google.golang.org/") || strings.HasPrefix(pkg, "github.com/bufbuild/") ||
			strings.Contains(pkg, "/internal/api/datamovement") || strings.HasSuffix(pkg, "/internal/api/lus") {
			t.Errorf("clientmountd links %s", pkg)
		}
	}
}
