// Package inventory reads what to install and where: the compute nodes of a system, the
// daemons with their accounts, and the address at which compute nodes reach the API server.
// It reads the SystemConfiguration, from the cluster or a file, and daemons.yaml and
// systems.yaml of existing installations.
//
// These inputs are not trusted: the package checks names before they become part of a
// command line. It must not depend on how a node is reached.
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

// Daemon is an entry of daemons.yaml. If Bin is empty, only its credentials are installed.
type Daemon struct {
	Name         string          `yaml:"name"` // the credentials are in /etc/<name>
	Bin          string          `yaml:"bin"`  // one of product.Daemons, or empty
	BuildCommand string          `yaml:"buildCmd"`
	Repository   string          `yaml:"repository"` // directory to build in
	Path         string          `yaml:"path"`       // directory of the built programs, below Repository
	Account      product.Account `yaml:"serviceAccount"`
	ExtraArgs    string          `yaml:"extraArgs"`
	Env          []EnvVar        `yaml:"env"`
}

// EnvVar is an environment variable of a daemon.
type EnvVar struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// Defaults returns both daemons, with the accounts of a Near-Node Flash installation, and
// with the credentials in the directories that their default configuration names.
func Defaults() (list []Daemon) {
	for _, d := range product.Daemons {
		list = append(list, Daemon{Name: d.Name, Bin: d.Name, BuildCommand: "make build-daemon", Path: "bin", Account: d.Account})
	}
	return list
}

// ReadDaemons reads a daemons.yaml: a list of entries, alone or below "daemons". Unknown
// keys are errors; keys that only earlier installers used are warnings.
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
			return nil, nil, fmt.Errorf("%s: entry %d: %s is listed twice", path, i+1, d.Name)
		}
	}
	return list, warnings, nil
}

func (d *Daemon) check() error {
	switch {
	case d.Name == "":
		return fmt.Errorf("name is missing: it names the directory of the credentials below /etc")
	case !product.ValidName(d.Name):
		return fmt.Errorf("name %q is not a valid directory name: use only letters, digits, hyphens, dots and underscores", d.Name)
	case d.Bin != "" && !slices.Contains(product.Names(), d.Bin):
		return fmt.Errorf("%s: unknown bin %q: use %s, or omit bin to install only the credentials", d.Name, d.Bin, strings.Join(product.Names(), " or "))
	case (d.Account.Name == "") != (d.Account.Namespace == ""):
		return fmt.Errorf("%s: serviceAccount needs a name and a namespace", d.Name)
	case d.Account.Name == "" && d.Bin == "":
		return fmt.Errorf("%s: nothing to install: it has neither bin nor serviceAccount", d.Name)
	case d.Account.Name != "" && (!dnsName(d.Account.Name) || !dnsName(d.Account.Namespace)):
		return fmt.Errorf("%s: %q is not a valid name of a service account", d.Name, d.Account)
	case strings.ContainsFunc(d.ExtraArgs, control):
		return fmt.Errorf("%s: extraArgs contains a line break or control character", d.Name)
	}
	for _, v := range d.Env {
		if len(validation.IsCIdentifier(v.Name)) > 0 {
			return fmt.Errorf("%s: %q is not a valid name of an environment variable", d.Name, v.Name)
		}
		if strings.ContainsFunc(v.Value, control) {
			return fmt.Errorf("%s: the value of %s contains a line break or control character", d.Name, v.Name)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// Site is an entry of systems.yaml: the SystemConfiguration for a context of the
// kubeconfig.
type Site struct {
	Name                string   `yaml:"name"`
	Aliases             []string `yaml:"aliases"`  // other contexts of this system
	Overlays            []string `yaml:"overlays"` // not used
	SystemConfiguration string   `yaml:"systemConfiguration"`
	Host                string   `yaml:"k8sHost"` // of the API server, for compute nodes
	Port                string   `yaml:"k8sPort"`
}

// ReadSites reads a systems.yaml: a list of entries, alone or below "systems". Unknown keys
// are errors; keys that only earlier installers used are warnings. The returned file names
// are paths; in the file, they are relative to its directory.
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
			return nil, nil, fmt.Errorf("%s: %s has no systemConfiguration, the file that lists its nodes%s", path, s.Name, rabbitsHint(warnings))
		}
		if !filepath.IsAbs(s.SystemConfiguration) {
			list[i].SystemConfiguration = filepath.Join(filepath.Dir(path), s.SystemConfiguration)
		}
		for _, o := range list[:i] {
			for _, n := range append([]string{s.Name}, s.Aliases...) {
				if o.hasName(n) {
					return nil, nil, fmt.Errorf("%s: %q is a name or alias of both %s and %s", path, n, o.Name, s.Name)
				}
			}
		}
	}
	return list, warnings, nil
}

// rabbitsHint returns an addition to the error for an entry that lists its nodes as earlier
// installers read them.
func rabbitsHint(warnings []string) string {
	if i := slices.IndexFunc(warnings, func(w string) bool { return strings.Contains(w, ": rabbits has no effect") }); i >= 0 {
		return " (rabbits has no effect)"
	}
	return ""
}

func (s Site) hasName(name string) bool { return s.Name == name || slices.Contains(s.Aliases, name) }

// SiteOf returns the entry whose name or alias is the context of the kubeconfig.
func SiteOf(all []Site, context string) (Site, error) {
	var known []string
	for _, s := range all {
		if s.hasName(context) {
			return s, nil
		}
		known = append(append(known, s.Name), s.Aliases...)
	}
	return Site{}, fmt.Errorf("no system has the name or alias %q, the context of the kubeconfig (known: %s)%s", context, strings.Join(known, ", "), text.DidYouMean(context, known))
}
