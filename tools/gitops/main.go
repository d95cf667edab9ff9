// Judges documents as Argo CD, Flux and Helm do, with their own engines: the Lua that Argo CD runs health checks in, Flux's evaluation
// of health check expressions, and kstatus, which Flux and Helm wait by.
//
//	gitops-judge argocd HEALTH.LUA DOCUMENT…    by a health check of Argo CD
//	gitops-judge flux EXPRESSIONS DOCUMENT…     by one element of a Kustomization's healthCheckExprs, as JSON
//	gitops-judge kstatus DOCUMENT…              by the rules for every kind
//
// Each document is a file with one object. For each, one line of JSON comes out: `document`, and `status` with `message`, or `error`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// A verdict is what is said of one document.
type verdict struct {
	Document string `json:"document"`
	Status   string `json:"status,omitempty"`
	Message  string `json:"message,omitempty"`
	Error    string `json:"error,omitempty"`
}

// A judge says status and message of an object.
type judge func(*unstructured.Unstructured) (string, string, error)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gitops-judge:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	judge, documents, err := chosen(arguments)
	if err != nil {
		return err
	}
	if len(documents) == 0 {
		return errors.New("no document was named")
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, document := range documents {
		said := verdict{Document: document}
		object, err := read(document)
		if err == nil {
			said.Status, said.Message, err = judge(object)
		}
		if err != nil {
			said.Error = err.Error()
		}
		if err := out.Encode(said); err != nil {
			return err
		}
	}
	return nil
}

func chosen(arguments []string) (judge, []string, error) {
	switch {
	case len(arguments) > 2 && arguments[0] == "argocd":
		script, err := os.ReadFile(arguments[1])
		return argocd(string(script)), arguments[2:], err
	case len(arguments) > 2 && arguments[0] == "flux":
		judge, err := flux(arguments[1])
		return judge, arguments[2:], err
	case len(arguments) > 1 && arguments[0] == "kstatus":
		return byKstatus, arguments[1:], nil
	}
	return nil, nil, errors.New("write argocd HEALTH.LUA, flux EXPRESSIONS or kstatus, and then the documents")
}

func read(file string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text, err = yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, object.UnmarshalJSON(text)
}

// As Argo CD runs what stands in its ConfigMap: a second, and of Lua's libraries nothing but the base and tables
// (argo-cd, util/lua/lua.go).
func argocd(script string) judge {
	return func(object *unstructured.Unstructured) (string, string, error) {
		state := lua.NewState(lua.Options{SkipOpenLibs: true})
		defer state.Close()
		for name, open := range map[string]lua.LGFunction{
			lua.LoadLibName: lua.OpenPackage,
			lua.BaseLibName: lua.OpenBase,
			lua.TabLibName:  lua.OpenTable,
		} {
			if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
				return "", "", err
			}
		}
		patience, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		state.SetContext(patience)
		state.SetGlobal("obj", value(state, object.Object))
		if err := state.DoString(script); err != nil {
			return "", "", err
		}
		health, ok := state.Get(-1).(*lua.LTable)
		if !ok {
			return "", "", fmt.Errorf("the script answers with %s, not with a table", state.Get(-1).Type())
		}
		status, isText := health.RawGetString("status").(lua.LString)
		switch status {
		case "Healthy", "Progressing", "Suspended", "Degraded", "Missing", "Unknown":
		default:
			isText = false
		}
		if !isText {
			return "", "", fmt.Errorf("the script answers with status %s, which Argo CD does not know", health.RawGetString("status"))
		}
		switch message := health.RawGetString("message").(type) {
		case lua.LString:
			return string(status), string(message), nil
		case *lua.LNilType:
			return string(status), "", nil
		default:
			return "", "", fmt.Errorf("the script answers with a message that is a %s", message.Type())
		}
	}
}

// value is a value of JSON in Lua.
func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := state.CreateTable(len(from), 0)
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(from))
		for name, item := range from {
			table.RawSetString(name, value(state, item))
		}
		return table
	}
	return lua.LNil
}

func flux(expressions string) (judge, error) {
	// As the API server reads a Kustomization: what is misspelt is refused.
	decoder := json.NewDecoder(strings.NewReader(expressions))
	decoder.DisallowUnknownFields()
	var check kustomize.CustomHealthCheck
	if err := decoder.Decode(&check); err != nil {
		return nil, fmt.Errorf("the expressions: %w", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
	if err != nil {
		return nil, err
	}
	return func(object *unstructured.Unstructured) (string, string, error) {
		if object.GetAPIVersion() != check.APIVersion || object.GetKind() != check.Kind {
			return "", "", fmt.Errorf("the expressions are for %s of %s", check.Kind, check.APIVersion)
		}
		return said(evaluator.Evaluate(context.Background(), object))
	}, nil
}

func byKstatus(object *unstructured.Unstructured) (string, string, error) {
	return said(status.Compute(object))
}

func said(result *status.Result, err error) (string, string, error) {
	if err != nil {
		return "", "", err
	}
	return result.Status.String(), result.Message, nil
}
