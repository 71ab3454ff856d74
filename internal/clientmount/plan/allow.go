package plan

import "strings"

// The rules in words, for those whose value is refused.
const (
	labelRule      = "a label has at most 63 of A-Z a-z 0-9 . _ - and starts with a letter or digit"
	objectNameRule = "a name of a Kubernetes object has 1 to 253 of a-z A-Z 0-9 . - and starts with a letter or digit"
	lustreNameRule = "a Lustre file system's name has 1 to 8 of A-Z a-z 0-9 _ - and does not start with -"
	nidRule        = "NIDs are made of A-Z a-z 0-9 . : @ , _ - and do not start with -"
	fsTypeRule     = "a file system type is made of A-Z a-z 0-9 . _ - and starts with a letter or digit"
)

// maxNQN is the longest NVMe qualified name (NVMe base specification).
const maxNQN = 223

// only tells whether s is made of ASCII letters, digits and the given others.
func only(s, others string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !alnum(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func labelValue(s string) bool { return len(s) <= 63 && s != "" && alnum(s[0]) && only(s, "._-") }
func objectName(s string) bool { return len(s) <= 253 && s != "" && alnum(s[0]) && only(s, ".-") }
func lustreName(s string) bool { return len(s) <= 8 && s != "" && s[0] != '-' && only(s, "_-") }
func nidList(s string) bool    { return len(s) <= 4096 && s != "" && s[0] != '-' && only(s, ".:@,_-") }
func fsTypeWord(s string) bool { return len(s) <= 64 && s != "" && alnum(s[0]) && only(s, "._-") }

// nqn is generous, because vendors put blanks into NQNs; it is only compared.
func nqn(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxNQN
}
