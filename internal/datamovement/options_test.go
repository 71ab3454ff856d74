package datamovement

import (
	"regexp"
	"strings"
	"testing"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

func options(t testing.TB, mode OptionMode) *Options {
	t.Helper()
	o, err := NewOptions(mode, []string{"--my-flag", "--my-value=", "-z", "-y="}, []string{"--host="})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCheckDCP(t *testing.T) {
	o := options(t, OptionsList)
	grammar := compile(o.Grammars().DCPOptions)
	for text, want := range map[string]string{
		"": "", " ": "", "-p": "", "  -p   -s ": "", "--preserve --chunksize 4MB": "", "--chunksize=4MB": "", "-k4MB": "", "-k 4MB": "", "-pSv": "", "-psk4MB": "", "-psk 4MB": "",
		"--xattrs none": "", "-X libattr": "", "--progress 10": "", "--progress=0": "", "--bufsize 1048576": "",
		"--my-flag -z": "", "--my-value a/b:c -y1": "", "--my-value=/x": "", "-zpy val": "",

		"--uid 0": "user or group", "--uid=0": "user or group", "--ui 0": "user or group", "--u 0": "user or group", "-U 0": "user or group", "-U0": "user or group", "-pU0": "user or group",
		"--gid 0": "user or group", "--g=0": "user or group", "-G0": "user or group", "-vG 0": "user or group", "-p --gid 0": "user or group", "--chunksize --uid": "user or group",
		"--": "ends the options", "-p --": "ends the options", "-": "ends the options", "---": "ends the options",
		"/etc/shadow": "neither an option", "-p /etc/shadow": "neither an option", "-p x": "neither an option", "-k 4MB 4MB": "neither an option",
		"--input /etc/shadow": "not an allowed option", "-i /x": "not an allowed option", "-pi/x": "not an allowed option", "--daos-src-pool x": "not an allowed option",
		"--preserv": "not an allowed option", "--help": "not an allowed option", "-preserve": "not an allowed option",
		"--chunksize": "needs a size", "-k": "needs a size", "-pk": "needs a size", "--chunksize=": "must start with", "--chunksize=x": "needs a size",
		"--chunksize 4MBB": "needs a size", "--chunksize 99999999999999999999": "needs a size", "--progress 1h": "needs a number", "--progress 3601": "needs a number",
		"--xattrs x": "needs one of", "--preserve=1": "does not take", "-k=4MB": "does not take", "--chunksize -p": "must start with",
		"--my-value -p": "must start with", "--my-value :": "must start with", "--my-flag=1": "does not take",
		"--my-value a-dcp-b": "name of a program", "--my-value mpirun": "name of a program",
		strings.Repeat("-p ", 65): "64 words", strings.Repeat("-p  ", 257): "1024 bytes",
		"-é": "are allowed, because", "-p\t-s": "are allowed, because", "-p\n-s": "are allowed, because", "-p\x00": "are allowed, because",
	} {
		check(t, "dcpOptions", text, want, o.CheckDCP(text))
		grammar.same(t, text, o.CheckDCP(text))
	}
}

func check(t *testing.T, field, text, want string, err error) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		return
	}
	if err == nil {
		t.Errorf("%q is accepted, want error ...%s...", text, want)
		return
	}
	wantFault(t, err, ErrInvalid, v2.ErrorReason_INVALID_FIELD, want)
	if f := Explain(err); f.Field != field || !strings.HasPrefix(f.Error(), field+" ") {
		t.Errorf("%q: the error does not name the field: %v", text, err)
	}
}

func TestCheckMPIRun(t *testing.T) {
	o := options(t, OptionsList)
	grammar := compile(o.Grammars().MPIRunOptions)
	for text, want := range map[string]string{
		"": "", "-np 4": "", "--np 4": "", "-n 4 --oversubscribe": "", "-oversubscribe": "", "--map-by ppr:2:node": "", "--map-by node:PE=2": "", "--bind-to none": "",
		"--mca btl ^openib": "", "-mca pml ucx": "", "--mca btl_tcp_if_include eth0,hsn0": "", "--host r1,r2": "", "--report-bindings -N 2": "",

		"/bin/sh": "neither an option", "-np 4 /bin/sh x": "neither an option", "--oversubscribe sh": "neither an option", "-np 4 : sh": "neither an option",
		"-x LD_PRELOAD=/x": "not an allowed option", "--prefix /x": "not an allowed option", "--hostfile /x": "not an allowed option", "--wdir /": "not an allowed option",
		"--output-filename /x": "not an allowed option", "--launch-agent sh": "not an allowed option", "--tune /x": "not an allowed option", "--app /x": "not an allowed option",
		"--mca plm_rsh_agent sh": "needs one of", "--mca orte_launch_agent sh": "needs one of", "--mca mca_base_component_path /x": "needs one of", "--mca btl /x": "needs one of",
		"--mca btl": "needs one of", "--mca": "needs one of", "--mca=btl tcp": "does not take", "--map-by rankfile:FILE=x": "needs a placement", "--map-by seq": "needs a placement",
		"--map-by /x": "needs a placement", "-np x": "needs a number", "-np -1": "must start with", "-np 65537": "needs a number", "-np": "needs a number",
		"-npx 4": "not an allowed option", "--": "ends the options", "-np 4 --": "ends the options",
	} {
		check(t, "mpirunOptions", text, want, o.CheckMPIRun(text))
		grammar.same(t, text, o.CheckMPIRun(text))
	}
}

// compiled is a grammar.
type compiled struct{ match, refuse *regexp.Regexp }

func compile(g Grammar) compiled {
	return compiled{regexp.MustCompile(g.Match), regexp.MustCompile(g.Refuse)}
}

func (g compiled) allows(text string) bool {
	return g.match.MatchString(text) && !g.refuse.MatchString(text)
}

// same compares the grammar with the result of the check, except for limits.
func (g compiled) same(t *testing.T, text string, err error) {
	t.Helper()
	if err != nil && (strings.Contains(err.Error(), "needs a number") || strings.Contains(err.Error(), "at most")) {
		return
	}
	if g.allows(text) != (err == nil) {
		t.Errorf("the grammar allows %q: %v, the check returns %v", text, err != nil, err)
	}
}

func TestOptionModes(t *testing.T) {
	none, anything := options(t, OptionsNone), options(t, OptionsAny)
	for _, o := range []*Options{none, nil} {
		check(t, "dcpOptions", "-p", "are disabled", o.CheckDCP("-p"))
		check(t, "mpirunOptions", "-np 1", "are disabled", o.CheckMPIRun("-np 1"))
		check(t, "dcpOptions", "", "", o.CheckDCP(""))
	}
	for text, want := range map[string]string{
		"--input /x": "", "--whatever -k1G -XU": "",
		"--uid 0": "user or group", "--ui=0": "user or group", "-pG0": "user or group", "--": "ends the options", "-p;id": "are allowed, because", "$(id)": "are allowed, because", "-p 'x'": "are allowed, because",
	} {
		check(t, "dcpOptions", text, want, anything.CheckDCP(text))
	}
	check(t, "mpirunOptions", "-x A=b", "", anything.CheckMPIRun("-x A=b"))
	check(t, "mpirunOptions", "-x A=`b`", "are allowed, because", anything.CheckMPIRun("-x A=`b`"))
}

func TestNewOptions(t *testing.T) {
	for _, c := range []struct {
		mode        OptionMode
		dcp, mpirun []string
		want        string
	}{
		{"", nil, nil, "unknown option mode"}, {"all", nil, nil, "unknown option"},
		{OptionsList, []string{"chunksize="}, nil, "invalid option"}, {OptionsList, []string{"--"}, nil, "invalid option"}, {OptionsList, []string{"---x"}, nil, "invalid option"},
		{OptionsList, []string{"--x y"}, nil, "invalid option"}, {OptionsList, []string{"--x;"}, nil, "invalid option"}, {OptionsList, []string{""}, nil, "invalid option"},
		{OptionsList, []string{"--uid="}, nil, "as another user"}, {OptionsList, []string{"-U"}, nil, "as another user"}, {OptionsList, []string{"--gi"}, nil, "as another user"},
		{OptionsList, nil, []string{"host"}, "option \"host\" of mpirun"},
	} {
		if _, err := NewOptions(c.mode, c.dcp, c.mpirun); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c, err)
		}
	}
	// Additional options do not change the built-in list.
	options(t, OptionsList)
	o, err := NewOptions(OptionsList, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "dcpOptions", "--my-flag", "not an allowed option", o.CheckDCP("--my-flag"))
}

func TestSizeText(t *testing.T) {
	for s, want := range map[string]bool{"1": true, "4MB": true, "4mb": true, "16k": true, "1GB": true, "": false, "MB": false, "4 MB": false, "4MiB": false, "0x10": false, "1.5G": false} {
		if sizeText(s) != want {
			t.Error(s)
		}
	}
}
