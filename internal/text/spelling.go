package text

import "strings"

// maxSuggest limits the length of words that are compared, in bytes. All keys are
// shorter.
const maxSuggest = 64

// DidYouMean returns `, did you mean "x"?` for the nearest known word, or "".
func DidYouMean(text string, known []string) string {
	if best := Nearest(text, known); best != "" {
		return `, did you mean "` + best + `"?`
	}
	return ""
}

// Nearest returns the known word that text most likely means, or "". A word is near if
// text is a prefix of this word only, or if at most a third of text differs. A key with a
// wrong section is near if its name is unique.
func Nearest(text string, known []string) string {
	if len(text) > maxSuggest {
		return ""
	}
	if word := withPrefix(strings.ToLower(text), known); word != "" {
		return word
	}
	best, least := "", 1+max(2, len(text)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(text), k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	if best != "" {
		return best
	}
	name := text[strings.LastIndexByte(text, '.')+1:]
	for _, k := range known {
		if strings.HasSuffix("."+k, "."+name) {
			if best != "" {
				return ""
			}
			best = k
		}
	}
	return best
}

// withPrefix returns the only known word that starts with text, which must have at least
// two letters.
func withPrefix(text string, known []string) (word string) {
	for _, k := range known {
		if len(text) > 1 && strings.HasPrefix(k, text) {
			if word != "" {
				return ""
			}
			word = k
		}
	}
	return word
}

// distance returns the number of insertions, deletions, replacements and swaps of adjacent
// bytes between a and b (optimal string alignment).
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
