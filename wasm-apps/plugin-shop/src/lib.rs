//! A function with typed records: prices orders, and misbehaves on request so that limits can be seen at work.

wit_bindgen::generate!({ world: "shop", path: "wit" });

use exports::examples::shop::orders::{Guest as Orders, Item, Order, Receipt, Refusal, Unit};

const MIB: usize = 1 << 20;
/// Name, and cents for a piece or a metre.
const PRICES: [(&str, u64); 3] = [("rope", 250), ("lantern", 4900), ("sailcloth", 1200)];
const VOUCHER: &str = "FAIR-WINDS";
const VOUCHER_PERCENT: u64 = 10;

struct Shop;

impl Orders for Shop {
    fn price(order: Order) -> Result<Receipt, Refusal> {
        if order.items.is_empty() {
            return Err(Refusal::Empty);
        }
        let mut receipt = Receipt { total: 0, lines: Vec::new() };
        for item in &order.items {
            let cents = cents(item)?;
            receipt.total += cents;
            let unit = match item.unit {
                Unit::Piece => "",
                Unit::Metre => " m of",
            };
            receipt.lines.push(format!("{}{unit} {}: {cents}", item.count, item.name));
        }
        match order.voucher.as_deref() {
            None => {}
            Some(VOUCHER) => receipt.total -= receipt.total * VOUCHER_PERCENT / 100,
            Some(other) => return Err(Refusal::BadVoucher(other.to_owned())),
        }
        Ok(receipt)
    }
}

fn cents(item: &Item) -> Result<u64, Refusal> {
    let known = PRICES.iter().find(|(name, _)| *name == item.name);
    let (_, each) = known.ok_or_else(|| Refusal::UnknownItem(item.name.clone()))?;
    Ok(each * u64::from(item.count))
}

impl Guest for Shop {
    fn add(a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }

    fn greet(name: String) -> String {
        let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
        println!("greeting {name}");
        format!("{greeting}, {name}!")
    }

    fn trap() {
        panic!("trapped as asked")
    }

    fn spin() {
        loop {
            std::hint::spin_loop();
        }
    }

    fn grow(mib: u32) -> u32 {
        let taken = vec![1u8; mib as usize * MIB];
        let touched: u32 = taken.iter().step_by(MIB).map(|byte| u32::from(*byte)).sum();
        touched
    }
}

export!(Shop);
