package offload

import (
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var barePromises = []promise{
	{"what the administrator has not set up", "4.2.3/none 4.2.5/none 4.2.5/several 4.2.5/default 4.2.5/pinned", both, notSetUp},
}

// forgetful makes the daemon ask for everything anew.
const forgetful = "[options]\nlookup_expiry = \"0s\"\n"

func notSetUp(s *scene) {
	s.config = forgetful
	s.usual()
	s.refused(createFailed, s.k.step+"no LustreFileSystem resources found")
	s.Apply(fileSystem("early", global))
	const none = "Error finding profile: unable to find a default NnfDataMovementProfile to use"
	s.refused(createFailed, none)
	s.Apply(dmProfile("plain", false))
	pinned := dmProfile("pinned-copy", true)
	pinned["metadata"].(fields)["namespace"] = "default"
	s.Apply(pinned)
	s.refused(createFailed, none)
	s.Apply(dmProfile("zeta", true))
	uid := s.create()
	s.same("the default profile", s.movement(uid).String("spec", "profileReference", "name"), "zeta")
	s.Apply(dmProfile("alpha", true))
	s.refused(createFailed, "Error finding profile: more than one default NnfDataMovementProfile found; unable to pick one: [alpha zeta]")
	s.create(func(w *wish) { w.Profile = "plain" })
	for _, o := range []lab.Object{dmProfile("plain", false), pinned, dmProfile("zeta", true), dmProfile("alpha", true), fileSystem("early", global)} {
		s.must(s.Cluster.Delete(s.ctx(), o.String("kind"), o.Namespace(), o.Name()))
	}
}
