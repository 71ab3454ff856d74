package datamovement

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// DefaultProfile returns the one profile of the list that is the default
// (contract nnf-dm.md 4.2.5).
func DefaultProfile(profiles []nnf.DataMovementProfile) (*nnf.DataMovementProfile, error) {
	var found []*nnf.DataMovementProfile
	for i := range profiles {
		if profiles[i].Data.Default {
			found = append(found, &profiles[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, failed(ReasonProfileNotFound, "unable to find a default NnfDataMovementProfile to use")
	case 1:
		return found[0], nil
	}
	names := make([]string, 0, len(found))
	for _, p := range found {
		names = append(names, trimmed(p.Name))
	}
	slices.Sort(names)
	return nil, failed(ReasonProfileNotFound, "more than one default NnfDataMovementProfile found; unable to pick one: [%s]", strings.Join(names, " "))
}

// ProfileNotFound is the error for a named profile that does not exist.
func ProfileNotFound(name string) *Fault {
	return failed(ReasonProfileNotFound, "unable to retrieve NnfDataMovementProfile: %s", trimmed(name))
}
