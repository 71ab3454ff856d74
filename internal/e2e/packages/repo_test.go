package packages

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/packaging"
)

// The repository has the packages, the file for /etc/yum.repos.d, and signatures if a key is given.
// internal/e2e/machine/container tests that dnf installs from it.
func TestRepository(t *testing.T) {
	b := must(t, first)
	key, err := packaging.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Remove()
	dir := filepath.Join(t.TempDir(), "new", "repo")
	const head = "[compute-daemons]\nname=Daemons for the compute nodes of Near-Node Flash systems\n"
	for _, test := range []struct {
		url  string
		key  *packaging.Key
		want string
	}{
		{"", nil, head + "baseurl=file://" + dir + "\n# Not signed: make repo GPG_KEY=... signs the packages and the metadata.\ngpgcheck=0\n"},
		{"https://site/repo", key, head + "baseurl=https://site/repo\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=https://site/repo/RPM-GPG-KEY-compute-daemons\n"},
	} {
		if err := packaging.MakeRepository(root, dir, test.url, test.key, b.all(t)); err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, "compute-daemons.repo"))
		if err != nil || string(config) != test.want {
			t.Errorf("%v, got\n%swant\n%s", err, config, test.want)
		}
		primary, err := command(nil, "sh", "-c", `gzip -dc "$1"/repodata/*-primary.xml.gz`, "primary", dir)
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, m := range regexp.MustCompile(`<location href="([^"]+)"`).FindAllStringSubmatch(primary, -1) {
			listed = append(listed, m[1])
		}
		var want []string
		for _, file := range b.all(t) {
			want = append(want, filepath.Base(file))
		}
		if lines := difference(listed, want); lines != "" {
			t.Errorf("the metadata lists %s", lines)
		}
		signed := 0
		database := t.TempDir()
		if test.key != nil {
			if _, err := command(nil, "rpmkeys", "--dbpath", database, "--import", filepath.Join(dir, "RPM-GPG-KEY-compute-daemons")); err != nil {
				t.Fatal(err)
			}
			metadata := filepath.Join(dir, "repodata/repomd.xml")
			if out, err := key.Command("gpg", "--verify", metadata+".asc", metadata).CombinedOutput(); err != nil {
				t.Errorf("the metadata: %v\n%s", err, out)
			}
			signed = len(names)
		}
		for _, name := range names {
			original := b.rpmOf(t, name)
			out, err := command(nil, "rpmkeys", "--dbpath", database, "--checksig", filepath.Join(dir, filepath.Base(original)))
			if err != nil {
				t.Error(err)
			}
			if strings.HasSuffix(strings.TrimSpace(out), "digests signatures OK") {
				signed--
			}
			if got, want := read(t, filepath.Join(dir, filepath.Base(original))), read(t, original); got.about != want.about || !slices.Equal(got.files, want.files) {
				t.Errorf("%s differs from the built package", name)
			}
		}
		if signed != 0 {
			t.Errorf("%d packages are not signed, with the key %v", signed, test.key)
		}
	}
}

// The SBOM of a program lists every linked module with its checksum, and is reproducible. The
// program is this test.
func TestSBOM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test has no build information")
	}
	file := filepath.Join(t.TempDir(), "test.cdx.json")
	var text [2][]byte
	for i := range text {
		if _, err := command(nil, filepath.Join(root, "packaging/sbom.sh"), self, file, "v1.2.3"); err != nil {
			t.Fatal(err)
		}
		if text[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(text[0], text[1]) {
		t.Error("the second document differs from the first")
	}
	type component struct {
		Name, Version string
		Hashes        []struct{ Alg, Content string }
	}
	var document struct {
		BOMFormat    string
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component component
		}
		Components []component
	}
	if err := json.Unmarshal(text[0], &document); err != nil {
		t.Fatal(err)
	}
	if c := document.Metadata.Component; document.BOMFormat != "CycloneDX" || document.SerialNumber != "" || document.Metadata.Timestamp != "" ||
		c.Name != info.Main.Path || c.Version != "v1.2.3" {
		t.Errorf("the document is %q, number %q of %q, for %+v", document.BOMFormat, document.SerialNumber, document.Metadata.Timestamp, c)
	}
	var got, want []string
	for _, c := range document.Components {
		line := c.Name + " " + c.Version
		for _, h := range c.Hashes {
			line += " " + h.Alg + " " + h.Content
		}
		got = append(got, line)
	}
	for _, m := range info.Deps {
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
		if err != nil || len(sum) == 0 {
			t.Fatalf("%s has the checksum %q, %v", m.Path, m.Sum, err)
		}
		want = append(want, m.Path+" "+m.Version+" SHA-256 "+hex.EncodeToString(sum))
	}
	want = append(want, "std "+info.GoVersion)
	if lines := difference(got, want); lines != "" {
		t.Errorf("the components: %s", lines)
	}
}
