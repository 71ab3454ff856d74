package payload

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// build builds a package with rpmbuild.
func build(t *testing.T, name, version, epoch string) (path string) {
	t.Helper()
	require.Tool(t, "rpmbuild", "rpm")
	dir := t.TempDir()
	spec := filepath.Join(dir, "x.spec")
	text := "Name: " + name + "\nVersion: " + version + "\nRelease: 3\n" + epoch + "Summary: s\nLicense: l\nBuildArch: noarch\n%description\nd\n%files\n"
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("rpmbuild", "-ba", "--quiet", "--define", "_topdir "+dir, "--define", "_rpmdir "+dir, "--define", "_srcrpmdir "+dir, spec)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	list, err := filepath.Glob(filepath.Join(dir, "noarch", "*.rpm"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	return list[0]
}

// Packages reads the same name, version and header checksum as rpm.
func TestPackageLikeRpm(t *testing.T) {
	for _, epoch := range []string{"", "Epoch: 7\n"} {
		path := build(t, "nnf-dm", "1.2.3", epoch)
		out, err := exec.Command("rpm", "-qp", "--qf", "%{NEVRA} %{SHA256HEADER}", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		p, skipped, err := Packages([]string{path}, []string{"nnf-dm"})
		if err != nil || len(skipped) != 0 || len(p.Packages) != 1 {
			t.Fatal(p, skipped, err)
		}
		one := p.Packages[0]
		if have := one.NEVRA + " " + one.Header; have != string(out) {
			t.Errorf("%s, rpm prints %s", have, out)
		}
		if one.Arch != "noarch" || one.Size == 0 || len(one.Sum) != 64 {
			t.Errorf("%+v", one)
		}
	}
}

func TestPackages(t *testing.T) {
	one := build(t, "nnf-dm", "1", "")
	two := build(t, "nnf-dm", "2", "")
	other := build(t, "nnf-deploy", "1", "")
	source, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(one)), "*.src.rpm"))
	if err != nil || len(source) != 1 {
		t.Fatal(source, err)
	}
	cut := filepath.Join(t.TempDir(), "cut.rpm")
	data, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, data[:200], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		files   []string
		names   []string
		skipped int
		err     string
	}{
		{"other packages are left out", []string{one, other, source[0]}, []string{"nnf-dm"}, 2, ""},
		{"two with the same name", []string{one, two}, []string{"nnf-dm"}, 0, "give only one of them"},
		{"missing package", []string{one}, []string{"nnf-dm", "clientmountd"}, 0, "none of the files is a package of clientmountd"},
		{"only a source package", []string{source[0]}, []string{"nnf-dm"}, 0, "none of the files is a package of nnf-dm"},
		{"truncated", []string{cut}, []string{"nnf-dm"}, 0, "cut.rpm: the package is truncated"},
		{"not a package", []string{"rpm_test.go"}, []string{"nnf-dm"}, 0, "rpm_test.go: not an RPM package"},
		{"missing file", []string{"/nonexistent/x.rpm"}, nil, 0, "/nonexistent/x.rpm: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, skipped, err := Packages(tt.files, tt.names)
			if len(skipped) != tt.skipped || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q %v", skipped, err)
			}
		})
	}
}

// FuzzHeader checks that each file is read or refused.
func FuzzHeader(f *testing.F) {
	head := append(append([]byte{}, leadMagic...), make([]byte, leadSize-4)...)
	empty := append(append([]byte{}, headerMagic...), make([]byte, 12)...)
	f.Add([]byte("no package"))
	f.Add(append(append(head, empty...), empty...))
	entry := append(append(append([]byte{}, headerMagic...), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2), 0, 0, 3, 0xe8, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0)
	f.Add(append(append(head, empty...), entry...))
	f.Fuzz(func(t *testing.T, data []byte) {
		tags, sum, err := header(bytes.NewReader(data))
		if err == nil && (len(sum) != 64 || tags == nil) {
			t.Errorf("%q %v", sum, tags)
		}
	})
}
