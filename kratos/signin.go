package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
)

// signInPage shows a login flow: its form, and what Kratos has to say of what was typed.
// https://www.ory.com/docs/kratos/concepts/ui-user-interface
var signInPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Sign in</title>
<style>
	body { max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif }
	label, input { display: block; width: 100%; box-sizing: border-box; font: inherit }
	input, button { margin-bottom: 1rem; padding: .4rem .6rem; font: inherit }
</style>
<h1>Sign in</h1>
{{range .Messages}}<p role="alert"><strong>{{.Text}}</strong>{{end}}
<form action="{{.Action}}" method="{{.Method}}">
{{range .Nodes}}{{$label := .Meta.Label.Text}}{{with .Attributes -}}
{{if eq .Type "hidden"}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">
{{else if eq .Type "submit"}}<button name="{{.Name}}" value="{{.Value}}">{{$label}}</button>
{{else}}<label>{{$label}} <input type="{{.Type}}" name="{{.Name}}" value="{{.Value}}" autocomplete="{{.Autocomplete}}" {{if .Required}}required{{end}}></label>
{{end}}{{end}}{{range .Messages}}<p role="alert"><strong>{{.Text}}</strong>{{end}}{{end}}
</form>
`))

// loginFlow is what the page needs of https://www.ory.com/docs/reference/api#operation/getLoginFlow.
type loginFlow struct {
	UI struct {
		Action, Method string
		Messages       []message
		Nodes          []struct {
			Attributes struct {
				Name, Type, Value, Autocomplete string
				Required                        bool
			}
			Meta     struct{ Label message }
			Messages []message
		}
	}
}

type message struct{ Text string }

// signInHandler answers with signInPage for the login flow that the query parameter flow names.
func (s *stack) signInHandler(w http.ResponseWriter, r *http.Request) {
	kratosURL := fmt.Sprintf("http://localhost:%d", s.KratosPort)
	req, err := http.NewRequestWithContext(r.Context(), "GET", kratosURL+"/self-service/login/flows?id="+url.QueryEscape(r.FormValue("flow")), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	req.Header["Cookie"] = r.Header["Cookie"]
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusNotFound, http.StatusGone: // no such flow, or too old
		http.Redirect(w, r, kratosURL+"/self-service/login/browser", http.StatusSeeOther)
		return
	default:
		http.Error(w, "Kratos answered "+resp.Status, http.StatusBadGateway)
		return
	}
	var flow loginFlow
	if err := json.NewDecoder(resp.Body).Decode(&flow); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	signInPage.Execute(w, flow.UI)
}
