package fleet

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// rotate gives a daemon's account a new token. The API server refuses the old
// one within seconds. It returns the new token.
func (f *Fleet) rotate(daemon string) string {
	f.t.Helper()
	program, err := lab.Binary("devcluster")
	if err != nil {
		f.t.Fatal(err)
	}
	if r := f.Run(nil, program, "token", "--dir", f.World.Cluster.Dir, "--daemon", daemon); r.Code != 0 {
		f.t.Fatalf("a new token for %s: %+v", daemon, r)
	}
	return f.token(daemon)
}

// token is what the daemon's account has now.
func (f *Fleet) token(daemon string) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.World.Cluster.Dir, daemon, product.TokenFile))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
