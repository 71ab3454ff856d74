package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// Outcome is the result of one node in the JSON output of nnf-deploy.
type Outcome struct {
	Node, Result, Cause, Hint string
	Seconds                   float64
	Changes, Notes, Journal   []string
}

// Answer is the result of a run of nnf-deploy with JSON output.
type Answer struct {
	Result
	Nodes map[string]Outcome
}

// Deploy runs nnf-deploy as the administrator does, with the ssh configuration of the fleet.
func (f *Fleet) Deploy(verb string, args ...string) Result {
	f.t.Helper()
	return f.Run(nil, f.program(), f.arguments(verb, args...)...)
}

// DeployJSON runs nnf-deploy with JSON output, which must list each node of the fleet, or each
// node in args, once and in order.
func (f *Fleet) DeployJSON(verb string, args ...string) Answer {
	f.t.Helper()
	r := f.Deploy(verb, append([]string{"-o", "json"}, args...)...)
	a, err := f.parse(r)
	if err != nil {
		f.t.Fatalf("%s %q: %v\n%s\n%s", verb, args, err, r.Stdout, r.Stderr)
	}
	return a
}

func (f *Fleet) parse(r Result) (Answer, error) {
	a := Answer{Result: r, Nodes: map[string]Outcome{}}
	var document struct{ Nodes []Outcome }
	if err := json.Unmarshal([]byte(r.Stdout), &document); err != nil {
		return a, fmt.Errorf("exit code %d, and the output is not JSON: %w", r.Code, err)
	}
	var names []string
	for _, o := range document.Nodes {
		names = append(names, o.Node)
		a.Nodes[o.Node] = o
	}
	if !slices.IsSorted(names) || len(a.Nodes) != len(names) {
		return a, fmt.Errorf("the nodes are %q", names)
	}
	return a, nil
}

// PackageArguments returns the arguments for the packages of a release.
func (r *Release) PackageArguments() (args []string) {
	for _, p := range r.Packages {
		args = append(args, "--rpm", p)
	}
	return args
}

func (f *Fleet) arguments(verb string, args ...string) []string {
	return append([]string{verb, "--ssh-option", "-F" + f.Config()}, args...)
}

func (f *Fleet) program() string {
	f.t.Helper()
	path := filepath.Join(f.repository(), "bin/nnf-deploy")
	if _, err := os.Stat(path); err != nil {
		f.t.Fatalf("%s does not exist: run make build-daemon", path)
	}
	return path
}

// Distribution installs the package that provides the dependencies of the daemons' packages.
func (f *Fleet) Distribution(nodes ...*Node) {
	f.t.Helper()
	distribution := machine.Distribution(f.t)
	for _, n := range nodes {
		n.Put("/root/distribution.rpm", 0o644, distribution)
		n.Do("rpm -i /root/distribution.rpm && rm /root/distribution.rpm")
	}
}

// Repository creates a dnf repository with that package on these nodes. It is not installed, so
// installing the daemons' packages requires dnf.
func (f *Fleet) Repository(nodes ...*Node) {
	f.t.Helper()
	distribution := machine.Distribution(f.t)
	for _, n := range nodes {
		n.Put("/srv/repository/distribution.rpm", 0o644, distribution)
		n.Put("/etc/yum.repos.d/local.repo", 0o644, []byte("[local]\nname=local\nbaseurl=file:///srv/repository\ngpgcheck=0\n"))
		n.Put("/etc/dnf/vars/releasever", 0o644, []byte("9\n"))
		n.Do("createrepo_c -q /srv/repository")
	}
}
