package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Daemon is an entry of daemons.yaml. One without Bin only has its credentials
// brought to the nodes.
type Daemon struct {
	Name         string          `yaml:"name"` // credentials are in /etc/<name>
	Bin          string          `yaml:"bin"`  // one of product.Daemons, or empty
	BuildCommand string          `yaml:"buildCmd"`
	Repository   string          `yaml:"repository"` // folder to build in
	Path         string          `yaml:"path"`       // of what was built, below it
	Account      product.Account `yaml:"serviceAccount"`
	ExtraArgs    string          `yaml:"extraArgs"`
	Env          []EnvVar        `yaml:"env"`
}

// EnvVar is an environment variable of a daemon.
type EnvVar struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// Defaults are our two daemons with the accounts of a Near-Node Flash
// installation, and the credentials where their configuration looks for them.
func Defaults() (list []Daemon) {
	for _, d := range product.Daemons {
		list = append(list, Daemon{Name: d.Name, Bin: d.Name, BuildCommand: "make build-daemon", Path: "bin", Account: d.Account})
	}
	return list
}

// ReadDaemons reads a daemons.yaml: a list of entries, alone or below "daemons".
// Unknown keys are errors; keys that only earlier installers knew are warnings.
func ReadDaemons(path string) (list []Daemon, warnings []string, err error) {
	list, warnings, err = readList[Daemon](path, "daemons", []string{"name", "bin", "buildCmd", "repository", "path", "serviceAccount", "namespace", "extraArgs", "env", "value"})
	if err != nil {
		return nil, nil, err
	}
	for i, d := range list {
		if err := d.check(); err != nil {
			return nil, nil, fmt.Errorf("%s: entry %d: %w", path, i+1, err)
		}
		if slices.ContainsFunc(list[:i], func(o Daemon) bool { return o.Name == d.Name || d.Bin != "" && o.Bin == d.Bin }) {
			return nil, nil, fmt.Errorf("%s: entry %d: %s is there twice", path, i+1, d.Name)
		}
	}
	return list, warnings, nil
}

// folderName is one segment of a path; it also goes into messages and names of
// files.
var folderName = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.]{0,63}$`)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (d *Daemon) check() error {
	switch {
	case d.Name == "":
		return fmt.Errorf("it has no name, which is the folder of its credentials below /etc")
	case !folderName.MatchString(d.Name):
		return fmt.Errorf("name %q cannot be a folder below /etc: letters, digits, hyphens, dots and underscores only", d.Name)
	case d.Bin != "" && !slices.Contains(product.Names(), d.Bin):
		return fmt.Errorf("%s: bin %q is not known, there are %s; without bin only the credentials are copied", d.Name, d.Bin, strings.Join(product.Names(), " and "))
	case (d.Account.Name == "") != (d.Account.Namespace == ""):
		return fmt.Errorf("%s: serviceAccount needs a name and a namespace", d.Name)
	case d.Account.Name == "" && d.Bin == "":
		return fmt.Errorf("%s: neither bin nor serviceAccount: there is nothing to install", d.Name)
	case d.Account.Name != "" && (!name.MatchString(d.Account.Name) || !name.MatchString(d.Account.Namespace)):
		return fmt.Errorf("%s: %q is not the name of a service account", d.Name, d.Account)
	case strings.ContainsFunc(d.ExtraArgs, control):
		return fmt.Errorf("%s: extraArgs has a line break or control character in it", d.Name)
	}
	for _, v := range d.Env {
		if !variable.MatchString(v.Name) {
			return fmt.Errorf("%s: %q is not the name of an environment variable", d.Name, v.Name)
		}
		if strings.ContainsFunc(v.Value, control) {
			return fmt.Errorf("%s: the value of %s has a line break or control character in it", d.Name, v.Name)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }
