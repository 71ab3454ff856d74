package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newerVersion is higher than any that git describe gives.
const newerVersion = "9999"

// NewerRepository adds to the machine's repository the packages of a next
// release: the same programs, with another line in the configuration files.
func (m *Machine) NewerRepository() {
	m.t.Helper()
	dir := m.t.TempDir()
	if err := newer(m.t, dir); err != nil {
		m.t.Fatal(err)
	}
	list, _ := filepath.Glob(filepath.Join(dir, "*.rpm"))
	for _, p := range list {
		data, err := os.ReadFile(p)
		if err != nil {
			m.t.Fatal(err)
		}
		m.Put("/root/repo/"+filepath.Base(p), 0o644, data)
	}
	m.Do("createrepo_c -q --update /root/repo")
}

// newer has nfpm make packages from the tree from which make rpm has made those
// of this release.
func newer(t testing.TB, out string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	work := t.TempDir()
	script := `set -eu
cp -a "$1/bin/rpm/source/amd64/." .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done
for package in clientmountd nnf-dm; do
  sed -i 's/compression: .*/compression: gzip:1/' $package.yaml
  "$1/bin/nfpm" package --packager rpm --config $package.yaml --target "$2/"
done`
	cmd := exec.Command("sh", "-c", script, "newer", root, out)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "GOARCH=amd64", "RPM_VERSION="+newerVersion, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return nil
}
