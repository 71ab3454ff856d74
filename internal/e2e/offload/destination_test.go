package offload

import (
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var destinationPromises = []promise{
	{"destinations lie in a global file system", "4.2.3/absolute 4.2.3/match 4.2.4 9.7", both, destinations},
}

func destinations(s *env) {
	s.config = forgetful
	s.usual()
	n := s.Node
	deep := "/lus/deep-" + n
	for name, root := range map[string]string{"a": deep, "b": deep + "/er/", "c": deep + "/er/est"} {
		s.Apply(world.FileSystem(fmt.Sprintf("%.8s", name+n[len(n)-3:]), root))
	}
	of := func(name string) string { return fmt.Sprintf("%.8s", name+n[len(n)-3:]) }
	for _, d := range []struct{ path, system string }{
		{deep + "/x", of("a")}, {deep, of("a")}, {deep + "/", of("a")}, {deep + "/ere", of("a")},
		{deep + "/er", of("b")}, {deep + "/er/", of("b")}, {deep + "/er/x", of("b")},
		{deep + "/er/est/x/", of("c")}, {deep + "/er/estimate", of("b")},
	} {
		o := s.Movement(s.create(to(d.path)))
		s.same("destination", o.String("spec", "destination", "path"), d.path)
		want := ""
		if s.k == lustre {
			want = d.system
		}
		s.same("file system of "+d.path, o.String("spec", "destination", "storageReference", "name"), want)
	}
	for _, path := range []string{"/lus/globally", "/lus", "/", deep + "er"} {
		s.refused(createFailed, s.k.step+"unable to find a LustreFileSystem resource matching "+path, to(path))
	}
	for path, why := range map[string]string{
		"relative/path":              "it must be an absolute path",
		global + "/../../etc/passwd": "it must not contain .. as a name",
	} {
		s.refused(createInvalid, `destination "`+path+`" is refused: `+why, to(path))
	}
	s.refused(createInvalid, "destination is missing", to(""))
}
