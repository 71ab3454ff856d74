package packages

import (
	"debug/elf"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The packages of the other architecture are made here, too: the same files, and
// programs for that machine.
func TestOtherArchitecture(t *testing.T) {
	b := must(t, first)
	other, arch, machine := "arm64", "aarch64", elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		other, arch, machine = "amd64", "x86_64", elf.EM_X86_64
	}
	out := t.TempDir()
	if _, err := command(nil, filepath.Join(b.tree, "packaging/source.sh"), out); err != nil {
		t.Fatal(err)
	}
	if _, err := command(nil, filepath.Join(b.tree, "packaging/rpm.sh"), out, filepath.Join(root, "bin/nfpm"), other); err != nil {
		t.Fatal(err)
	}
	for name, programs := range map[string][]string{"clientmountd": {"clientmountd"}, "nnf-dm": {"nnf-dm", "nnf-dmctl"}, "nnf-deploy": {"nnf-deploy"}} {
		pkg := filepath.Join(out, name+"-0.1.0-1."+arch+".rpm")
		if got := query(t, pkg, "%{ARCH}"); got != arch {
			t.Errorf("%s is for %s", name, got)
		}
		if lines := difference(paths(read(t, pkg).files), paths(read(t, b.rpmOf(t, name)).files)); lines != "" {
			t.Errorf("%s for %s: %s", name, arch, lines)
		}
		tree := t.TempDir()
		if _, err := command(nil, "sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio --quiet -i -d --no-absolute-filenames)`, "unpack", pkg, tree); err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			f, err := elf.Open(filepath.Join(tree, "usr/bin", p))
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Machine != machine {
				t.Errorf("%s is a program for %s", p, f.Machine)
			}
			f.Close()
		}
	}
}

// paths are the names of files, without their checksums and sizes.
func paths(files []string) (list []string) {
	for _, f := range files {
		list = append(list, f[:strings.LastIndex(f, " #")])
	}
	return list
}
