package packaging

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// A release has every program of the Makefile, built with the same flags, for both
// architectures; the packages; the SBOM of each program; and a checksum of each file.
// make snapshot builds one.
func TestRelease(t *testing.T) {
	data, err := os.ReadFile("../.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var release struct {
		Builds []struct {
			Main, Binary         string
			Env, Goarch, Ldflags []string
			Flags                []string
		}
		SBOMs []struct {
			Artifacts, Cmd string
			Args           []string
		}
		Checksum struct {
			Extra []struct{ Glob string } `json:"extra_files"`
		}
		Release struct {
			Extra []struct{ Glob string } `json:"extra_files"`
		}
	}
	if err := yaml.Unmarshal(data, &release); err != nil {
		t.Fatal(err)
	}
	makefile := read(t, "../Makefile")
	variable := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + ` *:= (.*)$`).FindStringSubmatch(makefile)
		if m == nil {
			t.Fatal("the Makefile does not set ", name)
		}
		return m[1]
	}
	binaries := map[string]bool{}
	for _, name := range strings.Fields(strings.Replace(variable("BINARIES"), "$(DAEMONS)", variable("DAEMONS"), 1)) {
		binaries[name] = true
	}
	if len(binaries) < 4 {
		t.Fatalf("the Makefile builds %v", binaries)
	}
	ldflags := strings.NewReplacer("$(MODULE)", variable("MODULE"), "$(VERSION)", "{{ .Env.VERSION }}").Replace(variable("LDFLAGS"))
	for _, b := range release.Builds {
		if !binaries[b.Binary] || b.Main != "./cmd/"+b.Binary {
			t.Errorf("%s from %s is not what the Makefile builds", b.Binary, b.Main)
		}
		delete(binaries, b.Binary)
		if !slices.Equal(b.Goarch, []string{"amd64", "arm64"}) || !slices.Contains(b.Env, "CGO_ENABLED=0") {
			t.Errorf("%s: %v, %v", b.Binary, b.Goarch, b.Env)
		}
		if !slices.Equal(b.Ldflags, []string{ldflags}) {
			t.Errorf("%s has the linker flags %q, the Makefile %q", b.Binary, b.Ldflags, ldflags)
		}
		for _, flag := range b.Flags {
			if !strings.Contains(makefile, strings.Replace(flag, "=", " ", 1)) && !strings.Contains(makefile, flag) {
				t.Errorf("%s is built with %s, which the Makefile does not use", b.Binary, flag)
			}
		}
	}
	if len(binaries) > 0 {
		t.Errorf("a release lacks %q", slices.Sorted(maps.Keys(binaries)))
	}
	// goreleaser expands templates in arguments, but not in the command.
	if len(release.SBOMs) != 1 || release.SBOMs[0].Artifacts != "binary" || strings.Contains(release.SBOMs[0].Cmd, "{{") {
		t.Errorf("lists of modules: %+v", release.SBOMs)
	} else if script := strings.TrimPrefix(release.SBOMs[0].Args[0], "{{ .Env.TREE }}/"); !exists(filepath.Join("..", script)) {
		t.Errorf("%s does not exist", script)
	}
	for name, extra := range map[string][]struct{ Glob string }{"checksums": release.Checksum.Extra, "release": release.Release.Extra} {
		var globs []string
		for _, e := range extra {
			globs = append(globs, e.Glob)
		}
		if !slices.Equal(globs, []string{"bin/rpm/*.rpm", "bin/rpm/*.tar.gz"}) {
			t.Errorf("%s: extra files %q", name, globs)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
