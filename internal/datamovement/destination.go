package datamovement

import (
	"cmp"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
)

// MatchDestination returns the global file system that dest lies in: the one
// with the longest mountRoot by whole names (contract nnf-dm.md 4.2.3, "Do
// better" 7). It is asked for gfs2 as well, whose object names no file system
// but whose destination must lie in one all the same.
func MatchDestination(dest string, systems []lus.LustreFileSystem) (dws.ObjectReference, error) {
	p, err := parsePath(fieldDestination, dest)
	if err != nil {
		return dws.ObjectReference{}, err
	}
	if len(systems) == 0 {
		return dws.ObjectReference{}, failed(ReasonDestinationUnknown, "no LustreFileSystem resources found")
	}
	var best *lus.LustreFileSystem
	var bestRoot string
	for i := range systems {
		s := &systems[i]
		root := parseRoot(s.Spec.MountRoot)
		if root == "" {
			continue
		}
		if _, ok := within(p.Path, root); !ok {
			continue
		}
		if best == nil || cmp.Or(len(bestRoot)-len(root), cmp.Compare(s.Namespace, best.Namespace), cmp.Compare(s.Name, best.Name)) < 0 {
			best, bestRoot = s, root
		}
	}
	if best == nil {
		return dws.ObjectReference{}, failed(ReasonDestinationUnknown, "unable to find a LustreFileSystem resource matching %s", dest)
	}
	return dws.ObjectReference{Kind: lus.KindLustreFileSystem, Name: best.Name, Namespace: best.Namespace}, nil
}
