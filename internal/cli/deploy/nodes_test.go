package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
)

func TestSelectedDaemons(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemons.yaml")
	if err := os.WriteFile(path, []byte("- {name: nnf-fence, serviceAccount: {name: f, namespace: n}}\n- {name: nnf-data-movement, bin: nnf-dm}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		only []string
		want string
	}{
		{"", nil, "clientmountd nnf-dm"},
		{"", []string{"nnf-dm"}, "nnf-dm"},
		{path, nil, "nnf-fence nnf-data-movement"},
		{path, []string{"nnf-dm"}, "nnf-data-movement"},
		{path, []string{"nnf-fence"}, "nnf-fence"},
		{path, []string{"nnf-fence", "nnf-data-movement"}, "nnf-fence nnf-data-movement"},
		{path, []string{"clientmountd"}, "!"},
		{path, []string{""}, "!"},
	} {
		n := nodesSettings{daemons: tt.file, only: tt.only}
		list, _, err := n.selected()
		var names []string
		for _, d := range list {
			names = append(names, d.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "!"
		}
		if got != tt.want {
			t.Errorf("%q: %q %v", tt.only, got, err)
		}
	}
}

func TestAddressForComputeNodes(t *testing.T) {
	site := &inventory.Site{Host: "10.0.0.5", Port: "6443"}
	for _, tt := range []struct {
		site *inventory.Site
		a    address
		want string
	}{
		{site, address{}, "10.0.0.5:6443"},
		{site, address{host: "fd00::1"}, "[fd00::1]:6443"},
		{nil, address{host: "fd00::1", port: "1"}, "[fd00::1]:1"},
	} {
		j := &job{v: &call{Call: &cli.Call{Program: Program.Name, Process: cli.Process{}}}, n: &nodesSettings{}, site: tt.site}
		if got, err := j.address(tt.a); err != nil || got.String() != tt.want {
			t.Errorf("%+v: %v %v", tt.a, got, err)
		}
	}
}
