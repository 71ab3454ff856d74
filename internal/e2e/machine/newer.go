package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// newerVersion is higher than any that git describe gives.
const newerVersion = "9999"

// NewerRepository adds to the machine's repository the packages of a next
// release: the same programs, with another line in the configuration files.
func (m *Machine) NewerRepository() {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.World.Dir, "newer-") // goes with the laboratory, however that ends
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	list, err := newer(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range list {
		m.putPackage(p, "/root/repo")
	}
	m.Do("createrepo_c -q --update /root/repo")
}

// newer has nfpm make packages in a folder, from the tree from which make rpm
// has made those of this release.
func newer(dir string) ([]string, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	script := `set -eu
cp -a "$1/bin/rpm/source/amd64/." .
for config in root/etc/*/config.toml; do echo "# another default" >>"$config"; done
for package in clientmountd nnf-dm; do
  sed -i 's/compression: .*/compression: gzip:1/' $package.yaml
  "$1/bin/nfpm" package --packager rpm --config $package.yaml
done`
	cmd := exec.Command("sh", "-c", script, "newer", root)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOARCH=amd64", "RPM_VERSION="+newerVersion, "RPM_RELEASE=1", "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("packages of a next release: %w: run make rpm\n%s", err, strings.TrimSpace(string(text)))
	}
	return filepath.Glob(filepath.Join(dir, "*.rpm"))
}
