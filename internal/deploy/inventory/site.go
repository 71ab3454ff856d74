package inventory

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Site is an entry of systems.yaml: which SystemConfiguration belongs to which
// context of the kubeconfig.
type Site struct {
	Name                string   `yaml:"name"`
	Aliases             []string `yaml:"aliases"`  // contexts that mean it as well
	Overlays            []string `yaml:"overlays"` // of the cluster's side; not used
	SystemConfiguration string   `yaml:"systemConfiguration"`
	Host                string   `yaml:"k8sHost"` // of the API server, for computes
	Port                string   `yaml:"k8sPort"`
}

// ReadSites reads a systems.yaml: a list of entries, alone or below "systems".
// Unknown keys are errors; keys that only earlier installers knew are warnings. Names of files are relative to
// its directory and are returned as paths.
func ReadSites(path string) (list []Site, warnings []string, err error) {
	list, warnings, err = readList[Site](path, "systems", []string{"name", "aliases", "overlays", "systemConfiguration", "k8sHost", "k8sPort"})
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

// older explains to the reader of an older file why its nodes are not found.
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
