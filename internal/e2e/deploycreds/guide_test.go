package deploycreds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// TestCredentialsGuide runs the command of docs/credentials.md that creates the credentials, as
// an administrator would. It writes the files of both daemons.
func TestCredentialsGuide(t *testing.T) {
	blocks := manual.Commands(t, "../../..", "docs/credentials.md", "internal/e2e/deploycreds TestCredentialsGuide")
	s := newSite(t)
	program, err := lab.Binary("nnf-deploy")
	s.Must(err)
	dir := t.TempDir()
	commands := filepath.Join(dir, "commands.sh")
	s.Must(os.WriteFile(commands, []byte("set -eu\n"+strings.Join(blocks, "")), 0o600))
	if out, err := s.shell(filepath.Dir(program)+":"+os.Getenv("PATH"), commands, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, d := range product.Daemons {
		for _, name := range []string{product.TokenFile, product.CertFile} {
			if s.read(filepath.Join(dir, "credentials", d.Name, name)) == "" {
				t.Errorf("%s of %s is empty", name, d.Name)
			}
		}
	}
}
