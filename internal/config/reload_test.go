package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReload(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "log.level = \"info\"\nnode.name = \"a\"\nmount.roots = [\"/a\"]\n"})
	file := filepath.Join(dir, "config.toml")
	src := Sources{File: file, Args: []string{"--hook-timeout=7m"}}
	first := &Clientmountd{}
	old, _, err := Load(ClientmountdTable(first), src)
	if err != nil {
		t.Fatal(err)
	}
	before := *first

	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// Nothing changed but where it is written.
	rewrite("\n\nlog.level = \"info\"\nnode.name = \"a\"\nmount.roots = [\"/a\"]\n")
	c := &Clientmountd{}
	r, changed, ignored, err := Reload(old, ClientmountdTable(c), src)
	if err != nil || len(changed)+len(ignored) > 0 || !reflect.DeepEqual(*c, before) {
		t.Errorf("unchanged: %q, %q, %v, %+v", changed, ignored, err, *c)
	}
	if v, _ := r.Lookup("log.level"); v.Origin.Line != 3 {
		t.Errorf("the line is still %d", v.Origin.Line)
	}

	// Some may change, some need a restart, and a flag still wins.
	rewrite("log.level = \"debug\"\nnode.name = \"b\"\nmount.roots = [\"/b\"]\nmount.command_timeout = \"5s\"\nmount.hook_timeout = \"1m\"\n")
	c = &Clientmountd{}
	r, changed, ignored, err = Reload(old, ClientmountdTable(c), src)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"mount.command_timeout", "log.level"}; !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if want := []string{"node.name", "mount.roots"}; !slices.Equal(ignored, want) {
		t.Errorf("ignored %q, want %q", ignored, want)
	}
	if c.Log.Level != "debug" || c.Mount.CommandTimeout != 5*time.Second || c.Mount.HookTimeout != 7*time.Minute ||
		c.Node.Name != "a" || !slices.Equal(c.Mount.Roots, []string{"/a"}) {
		t.Errorf("after reload %+v", *c)
	}
	if v, _ := r.Lookup("node.name"); v.Value != "a" || v.Origin.String() != file+":2" {
		t.Errorf("node.name is %v of %s", v.Value, v.Origin)
	}
	if !reflect.DeepEqual(*first, before) {
		t.Error("the structure in use was written to")
	}

	// What is ignored is named again at the next reload, since it still waits.
	if _, _, again, err := Reload(r, ClientmountdTable(&Clientmountd{}), src); err != nil || !slices.Equal(again, ignored) {
		t.Errorf("second reload ignores %q, %v", again, err)
	}
}

func TestReloadOfABadFileKeepsTheOld(t *testing.T) {
	dir := write(t, map[string]string{"config.toml": "log.level = \"warn\"\n"})
	src := Sources{File: filepath.Join(dir, "config.toml")}
	old, _, err := Load(ClientmountdTable(&Clientmountd{}), src)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src.File, []byte("log.level = \"debug\"\nlog.colour = true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := &Clientmountd{}
	r, changed, ignored, err := Reload(old, ClientmountdTable(c), src)
	if err == nil || !strings.Contains(err.Error(), `config.toml:2: unknown key "log.colour"`) {
		t.Errorf("error %v", err)
	}
	if !reflect.DeepEqual(r, old) || changed != nil || ignored != nil || !reflect.DeepEqual(*c, Clientmountd{}) {
		t.Errorf("something changed: %q, %q, %+v", changed, ignored, *c)
	}
}
