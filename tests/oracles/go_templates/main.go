// Records what Go's text/template makes of each case of a file: go run main.go FILE rewrites FILE.
// Integers stay integers, as kubectl-genainet has them; base64decode is kubectl's own function.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"text/template"
)

type result struct {
	Template string  `json:"template"`
	Text     *string `json:"text"` // null: Go refuses the template, or can't evaluate it
}

type cases struct {
	Data  any      `json:"data"`
	Cases []result `json:"cases"`
}

func exact(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		made := map[string]any{}
		for key, each := range v {
			made[key] = exact(each)
		}
		return made
	case []any:
		made := make([]any, len(v))
		for i, each := range v {
			made[i] = exact(each)
		}
		return made
	}
	return value
}

func evaluate(text string, data any) *string {
	decode := func(s string) (string, error) {
		b, err := base64.StdEncoding.DecodeString(s)
		return string(b), err
	}
	parsed, err := template.New("").Funcs(template.FuncMap{"base64decode": decode}).Parse(text)
	if err != nil {
		return nil
	}
	var out bytes.Buffer
	if parsed.Execute(&out, exact(data)) != nil {
		return nil
	}
	made := out.String()
	return &made
}

func main() {
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var all cases
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil {
		panic(err)
	}
	for i := range all.Cases {
		all.Cases[i].Text = evaluate(all.Cases[i].Template, all.Data)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(all); err != nil {
		panic(err)
	}
	if err := os.WriteFile(os.Args[1], out.Bytes(), 0o644); err != nil {
		panic(err)
	}
}
