// Package inventory reads what is to be installed where: the compute nodes of a system,
// the daemons with their accounts, and the address of the API server as computes use it.
// It reads the SystemConfiguration, from the cluster or a file, and the daemons.yaml and
// systems.yaml of existing installations.
//
// Other people wrote all of these. Names are checked here, before any of them becomes part
// of a command line. The package must not know how a node is reached.
package inventory

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Daemon is an entry of daemons.yaml. If it has no Bin, only its credentials are installed.
type Daemon struct {
	Name         string          `yaml:"name"` // credentials are in /etc/<name>
	Bin          string          `yaml:"bin"`  // one of product.Daemons, or empty
	BuildCommand string          `yaml:"buildCmd"`
	Repository   string          `yaml:"repository"` // directory to build in
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
	list, warnings, err = readList[Daemon](path, "daemons")
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

func (d *Daemon) check() error {
	switch {
	case d.Name == "":
		return fmt.Errorf("it has no name, which is the folder of its credentials below /etc")
	case !product.ValidName(d.Name):
		return fmt.Errorf("name %q cannot be a folder below /etc: letters, digits, hyphens, dots and underscores only", d.Name)
	case d.Bin != "" && !slices.Contains(product.Names(), d.Bin):
		return fmt.Errorf("%s: bin %q is not known, there are %s; without bin only the credentials are copied", d.Name, d.Bin, strings.Join(product.Names(), " and "))
	case (d.Account.Name == "") != (d.Account.Namespace == ""):
		return fmt.Errorf("%s: serviceAccount needs a name and a namespace", d.Name)
	case d.Account.Name == "" && d.Bin == "":
		return fmt.Errorf("%s: neither bin nor serviceAccount: there is nothing to install", d.Name)
	case d.Account.Name != "" && (!dnsName(d.Account.Name) || !dnsName(d.Account.Namespace)):
		return fmt.Errorf("%s: %q is not the name of a service account", d.Name, d.Account)
	case strings.ContainsFunc(d.ExtraArgs, control):
		return fmt.Errorf("%s: extraArgs has a line break or control character in it", d.Name)
	}
	for _, v := range d.Env {
		if len(validation.IsCIdentifier(v.Name)) > 0 {
			return fmt.Errorf("%s: %q is not the name of an environment variable", d.Name, v.Name)
		}
		if strings.ContainsFunc(v.Value, control) {
			return fmt.Errorf("%s: the value of %s has a line break or control character in it", d.Name, v.Name)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// Site is an entry of systems.yaml: which SystemConfiguration belongs to which
// context of the kubeconfig.
type Site struct {
	Name                string   `yaml:"name"`
	Aliases             []string `yaml:"aliases"`  // other contexts of this system
	Overlays            []string `yaml:"overlays"` // of the cluster; not used
	SystemConfiguration string   `yaml:"systemConfiguration"`
	Host                string   `yaml:"k8sHost"` // of the API server, for computes
	Port                string   `yaml:"k8sPort"`
}

// ReadSites reads a systems.yaml: a list of entries, alone or below "systems".
// Unknown keys are errors; keys that only earlier installers knew are warnings. Names
// of files are relative to its directory and are returned as paths.
func ReadSites(path string) (list []Site, warnings []string, err error) {
	list, warnings, err = readList[Site](path, "systems")
	if err != nil {
		return nil, nil, err
	}
	for i, s := range list {
		switch {
		case s.Name == "":
			return nil, nil, fmt.Errorf("%s: entry %d has no name", path, i+1)
		case s.SystemConfiguration == "":
			return nil, nil, fmt.Errorf("%s: %s has no systemConfiguration, the file that names its nodes%s", path, s.Name, older(warnings))
		}
		if !filepath.IsAbs(s.SystemConfiguration) {
			list[i].SystemConfiguration = filepath.Join(filepath.Dir(path), s.SystemConfiguration)
		}
		for _, o := range list[:i] {
			for _, n := range append([]string{s.Name}, s.Aliases...) {
				if o.answersTo(n) {
					return nil, nil, fmt.Errorf("%s: %q means %s as well as %s", path, n, o.Name, s.Name)
				}
			}
		}
	}
	return list, warnings, nil
}

// older returns why the nodes of an older file are not found, for a message.
func older(warnings []string) string {
	if i := slices.IndexFunc(warnings, func(w string) bool { return strings.Contains(w, ": rabbits has no effect") }); i >= 0 {
		return " (rabbits has no effect)"
	}
	return ""
}

func (s Site) answersTo(name string) bool { return s.Name == name || slices.Contains(s.Aliases, name) }

// SiteOf returns the entry for a context of the kubeconfig.
func SiteOf(all []Site, context string) (Site, error) {
	var known []string
	for _, s := range all {
		if s.answersTo(context) {
			return s, nil
		}
		known = append(append(known, s.Name), s.Aliases...)
	}
	return Site{}, fmt.Errorf("no system has the name or alias %q, the context of the kubeconfig%s; there are %s", context, text.DidYouMean(context, known), strings.Join(known, ", "))
}
