//! Understanding a flow.

use serde_json::json;

use crate::support::app::{TestApp, get};

#[tokio::test]
async fn what_source_and_destination_a_flow_uses() {
    let app = TestApp::demo().await;
    let told = app.acme().text("get_flow", json!({ "flow": "NetSuite invoices" })).await;
    assert!(told.starts_with("NetSuite → Snowflake invoices reads NetSuite (ERP)/invoice and writes Snowflake (Analytics)/ANALYTICS.FINANCE.INVOICES"), "{told}");
    let row: (String, String) = app
        .row(
            "select s.name, d.name from flows f
               join connectors s on s.customer_id = f.customer_id and s.connector_id = f.source_connector_id
               join connectors d on d.customer_id = f.customer_id and d.connector_id = f.destination_connector_id
              where f.customer_id = 'cus_acme' and f.name = 'NetSuite → Snowflake invoices' and $1::timestamptz is not null",
        )
        .await;
    assert_eq!(row, ("NetSuite (ERP)".to_owned(), "Snowflake (Analytics)".to_owned()));
    assert!(told.contains("daily at 02:00 Europe/Berlin"), "{told}");
}

/// A client that shows a model nothing but the JSON leaves nothing out.
#[tokio::test]
async fn what_an_answer_notes_stands_in_its_json() {
    let app = TestApp::demo().await;
    let guessed = app.acme().call("get_flow", json!({ "flow": "ticket triage" })).await;
    assert_eq!(
        guessed.structured["notices"],
        json!(["Matched \"ticket triage\" to \"Support ticket triage\"."])
    );
    let page = app.acme().call("list_runs", json!({ "limit": 1 })).await;
    let notice = format!("more runs match; pass cursor={}", page.structured["next_cursor"].as_str().unwrap());
    assert_eq!(page.structured["notices"], json!([notice]));
    let plain = app.acme().call("get_flow", json!({ "flow": guessed.structured["flow"]["id"] })).await;
    assert_eq!(plain.structured.get("notices"), None);
}

/// A person is led from an answer to its page, where somebody said under which address the pages are found.
#[tokio::test]
async fn a_flow_and_a_run_say_where_their_pages_are() {
    let app = TestApp::demo_with(&[("server.public_url", "https://mcp.example.com")]).await;
    let flow = app.acme().call("get_flow", json!({ "flow": "NetSuite → Snowflake invoices" })).await;
    let run = app.acme().call("get_run", json!({ "run_id": "run_abc123" })).await;
    let id = flow.structured["flow"]["id"].as_str().unwrap();
    for (told, url, path) in [
        (&flow, &flow.structured["flow"]["url"], format!("/w/acme/flows/{id}")),
        (&run, &run.structured["run"]["url"], "/w/acme/runs/run_abc123".to_owned()),
    ] {
        assert_eq!(*url, format!("https://mcp.example.com{path}"));
        assert!(told.text.contains(&format!("\nPage: https://mcp.example.com{path}")), "{}", told.text);
        assert_eq!(
            get(&app.router, &path).await.0,
            303,
            "who is not signed in is asked to: there is such a page"
        );
    }
    let silent = TestApp::demo().await;
    let flow = silent.acme().call("get_flow", json!({ "flow": id })).await;
    assert_eq!(flow.structured["flow"].get("url"), None);
    assert!(!flow.text.contains("Page: "), "{}", flow.text);
}

#[tokio::test]
async fn the_field_mappings_of_a_flow() {
    let app = TestApp::demo().await;
    let told = app.acme().text("get_flow_mappings", json!({ "flow": "HubSpot → Salesforce contacts" })).await;
    let fields: Vec<String> = app
        .column(
            "select m ->> 'destination_field' from flows f
               join flow_versions v on v.customer_id = f.customer_id and v.flow_id = f.flow_id and v.version = f.current_version
              cross join jsonb_array_elements(v.definition -> 'streams') s
              cross join jsonb_array_elements(s -> 'mappings') m
              where f.customer_id = 'cus_acme' and f.name like 'HubSpot → Salesforce%' and $1::timestamptz is not null",
        )
        .await;
    assert_eq!(fields.len(), 14);
    for field in fields {
        assert!(told.lines().any(|line| line.contains(&format!("→ {field}"))), "{field}\n{told}");
    }
    assert!(told.starts_with("HubSpot → Salesforce contacts v12: 14 mappings"), "{told}");
    assert!(told.contains("constant HubSpot → LeadSource"), "{told}");
}

#[tokio::test]
async fn fields_with_filters_or_validations() {
    let app = TestApp::demo().await;
    let told = app
        .acme()
        .text("get_flow_mappings", json!({ "flow": "orders", "only": "filtered_or_validated" }))
        .await;
    let line = |field: &str| {
        told.lines()
            .find(|line| line.contains(&format!("→ {field} ")))
            .unwrap_or_else(|| panic!("{field}\n{told}"))
    };
    assert!(line("currency").contains("validate enum"), "{told}");
    assert!(line("email").contains("validate format"), "{told}");
    assert!(line("taxcode").contains("required") && line("taxcode").contains("default VAT-STD"), "{told}");
    assert!(line("shipdate").contains("filter: write only if"), "{told}");
    assert!(
        told.contains("Record filter: ")
            && told.contains("financial_status")
            && told.contains("partially_refunded"),
        "{told}"
    );
    assert!(!told.contains("→ shipcountry"), "a plain copy is left out\n{told}");
    for only in ["validated", "required", "filtered", "transformed"] {
        let told = app.acme().call("get_flow_mappings", json!({ "flow": "orders", "only": only })).await;
        assert_eq!(told.structured["total"], told.structured["counts"][only], "{only}: {}", told.text);
    }
}

#[tokio::test]
async fn whether_any_flow_writes_to_a_table() {
    let app = TestApp::demo().await;
    let arguments = json!({ "connector": "snowflake", "destination_object": "customers" });
    let told = app.acme().text("list_flows", arguments).await;
    assert!(told.starts_with("1 of 12 flows"), "{told}");
    assert!(told.contains("Shopify → Snowflake customers") && !told.contains("HubSpot companies"), "{told}");
    let mappings =
        app.acme().text("get_flow_mappings", json!({ "flow": "Shopify → Snowflake customers" })).await;
    assert!(mappings.contains("ANALYTICS.PUBLIC.CUSTOMERS"), "{mappings}");
    for (name, found) in
        [("PUBLIC.CUSTOMERS", 1), ("analytics.public.customers", 1), ("finance.customers", 0)]
    {
        let told = app.acme().call("list_flows", json!({ "destination_object": name })).await;
        assert_eq!(told.structured["total"], found, "{name}: {}", told.text);
    }
    let none = app.acme().text("list_flows", json!({ "destination_object": "nothing_here" })).await;
    assert!(none.starts_with("0 of 12 flows in Acme Retail (Europe/Berlin) write to nothing_here"), "{none}");
}

/// Streams that have no mapping to tell are told where they stand, and whatever they leave out.
#[tokio::test]
async fn every_stream_is_told_on_some_page() {
    let app = TestApp::demo().await;
    let field = |name: &str| json!({ "destination_field": name, "source_path": format!("$.{name}") });
    let stream = |source: &str, filter: serde_json::Value, mappings: serde_json::Value| {
        json!({ "source_object": source, "destination_object": source, "sync_mode": "full_refresh",
                "write_mode": "append", "record_filter": filter, "mappings": mappings })
    };
    let streams = json!([
        stream("a", json!(null), json!([field("one"), field("two")])),
        stream("b", json!("true"), json!([field("three")])),
        stream("c", json!(null), json!([])),
    ]);
    let define = "update flow_versions v set definition = jsonb_set(definition, '{streams}', $1)
        from flows f where f.customer_id = v.customer_id and f.flow_id = v.flow_id and v.version = f.current_version
         and f.flow_id = 'flow_inventory'";
    let defined = sqlx::query(define).bind(&streams).execute(&mut app.owner().await).await.unwrap();
    assert_eq!(defined.rows_affected(), 1);

    let asked = json!({ "flow": "flow_inventory", "only": "transformed" });
    let told = app.acme().call("get_flow_mappings", asked).await;
    assert!(
        told.text.contains("Record filter: ") && told.text.contains("Every field is copied"),
        "{}",
        told.text
    );
    assert_eq!(told.structured["streams"].as_array().unwrap().len(), 2, "{}", told.text);

    let mut asked = json!({ "flow": "flow_inventory", "limit": 2 });
    let mut seen = Vec::new();
    let mut notes = Vec::new();
    loop {
        let told = app.acme().call("get_flow_mappings", asked.clone()).await;
        for stream in told.structured["streams"].as_array().unwrap() {
            seen.push((stream["source"].clone(), stream["mappings"].as_array().unwrap().len()));
        }
        notes.extend(
            told.text
                .lines()
                .filter_map(|line| line.strip_suffix(told.structured["next_cursor"].as_str()?))
                .map(str::to_owned),
        );
        if told.structured["next_cursor"].is_null() {
            break;
        }
        asked["cursor"] = told.structured["next_cursor"].clone();
        asked["limit"] = json!(1);
    }
    assert_eq!(seen, [(json!("a"), 2), (json!("b"), 1), (json!("c"), 0)]);
    assert_eq!(notes, ["Note: 1 more mapping; pass cursor=", "Note: more streams; pass cursor="]);
}
