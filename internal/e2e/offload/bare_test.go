package offload

import (
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var barePromises = []promise{
	{"what the administrator has not set up", "4.2.3/none 4.2.5/none 4.2.5/several 4.2.5/default 4.2.5/pinned", both, notSetUp},
}

// forgetful makes the daemon ask for everything anew.
const forgetful = "[options]\nlookup_expiry = \"0s\"\n"

func notSetUp(s *env) {
	s.config = forgetful
	s.usual()
	s.refused(createFailed, s.k.step+"no LustreFileSystem resources found")
	s.Apply(world.FileSystem("early", global))
	const none = "Error finding profile: unable to find a default NnfDataMovementProfile to use"
	s.refused(createFailed, none)
	s.Apply(world.MovementProfile("plain", false))
	pinned := world.MovementProfile("pinned-copy", true)
	pinned["metadata"].(fields)["namespace"] = "default"
	s.Apply(pinned)
	s.refused(createFailed, none)
	s.Apply(world.MovementProfile("zeta", true))
	uid := s.create()
	s.same("the default profile", s.Movement(uid).String("spec", "profileReference", "name"), "zeta")
	s.Apply(world.MovementProfile("alpha", true))
	s.refused(createFailed, "Error finding profile: more than one default NnfDataMovementProfile found; unable to pick one: [alpha zeta]")
	s.create(func(w *wish) { w.Profile = "plain" })
	for _, o := range []lab.Object{world.MovementProfile("plain", false), pinned, world.MovementProfile("zeta", true), world.MovementProfile("alpha", true), world.FileSystem("early", global)} {
		s.must(s.Cluster.Delete(s.ctx(), o.String("kind"), o.Namespace(), o.Name()))
	}
}
